"""The place of energy, carbon and water of any computation; exports nothing yet."""

__all__: list[str] = []
