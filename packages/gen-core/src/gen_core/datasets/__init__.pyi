from .fashion import fashion_mnist
from .mnist import mnist_5k
from .packages import Package

__all__ = ["Package", "fashion_mnist", "mnist_5k"]
