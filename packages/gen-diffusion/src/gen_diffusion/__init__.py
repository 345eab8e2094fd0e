"""The place of x; exports nothing yet."""

__all__: list[str] = []
