"""The place of physics-informed learning, weather and climate; exports nothing yet."""

__all__: list[str] = []
