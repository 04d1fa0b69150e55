"""`python -m pointdiffusion` is the command `pointdiffusion`."""

from pointdiffusion.cli.app import main

if __name__ == "__main__":
    raise SystemExit(main())
