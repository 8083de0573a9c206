"""`python -m mobjrec` is the command line."""

from mobjrec.cli import main

main()
