"""`python -m opadpo` is the command line."""

import sys

from opadpo.cli import main

sys.exit(main())
