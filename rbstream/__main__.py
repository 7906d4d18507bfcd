"""The command `rbstream`, and `python -m rbstream`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being loaded is Ctrl-C as well."""
    try:
        from rbstream.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
