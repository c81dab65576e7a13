"""python -m suite"""

from suite.commands.main import main

main()
