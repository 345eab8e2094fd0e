from .brains import brains
from .emoji import emoji
from .fashion import fashion_mnist
from .mnist import mnist_5k
from .packages import Package
from .stamps import captions, stamps

__all__ = ["Package", "brains", "captions", "emoji", "fashion_mnist", "mnist_5k", "stamps"]
