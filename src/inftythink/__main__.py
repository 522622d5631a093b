"""``python -m inftythink`` is the command ``inftythink``."""

import sys

from inftythink.cli.main import main

sys.exit(main())
