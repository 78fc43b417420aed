"""`python -m service` is `ibinn-serve`."""

from service.cli import main

if __name__ == "__main__":
    main()
