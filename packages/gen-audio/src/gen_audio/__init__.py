"""The place of audio generation and audio-visual models; exports nothing yet."""

__all__: list[str] = []
