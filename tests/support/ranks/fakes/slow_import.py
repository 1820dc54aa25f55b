"""Takes its time to be imported, and says on stderr that it has begun."""

import sys
import time

print("importing", file=sys.stderr, flush=True)
time.sleep(60)
