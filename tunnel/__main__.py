"""``python -m tunnel`` is ``autotunnel``."""

from tunnel.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
