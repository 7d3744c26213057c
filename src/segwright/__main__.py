"""`python -m segwright` is the command line."""

from __future__ import annotations

from segwright.cli import main

if __name__ == "__main__":
    main()
