"""``python -m ibinn.loop``."""

from ibinn.loop.cli import app

if __name__ == "__main__":
    app()
