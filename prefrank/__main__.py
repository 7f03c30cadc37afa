"""`python -m prefrank`, which launchers such as torchrun need: the same as the command `prefrank`."""

from prefrank.cli import main

if __name__ == "__main__":
    main()
