"""The place of language models on one transformer block; exports nothing yet."""

__all__: list[str] = []
