"""`python -m prefrank`, which launchers such as torchrun need: the same as the command `prefrank`."""

from prefrank.cli import main

main()
