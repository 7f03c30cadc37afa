"""`make fuzz`: runs the tests here with new examples, again and again, until one fails or the time is over.

The seed of each round is printed; `FUZZ_SEED=123 make fuzz` starts with that one.
"""

import os
import random
import subprocess
import sys
import time


def main() -> int:
    start, seconds = time.monotonic(), float(os.environ.get("FUZZ_SECONDS", "600"))
    seed = int(os.environ.get("FUZZ_SEED") or random.randrange(1 << 32))
    while True:
        print(f"seed {seed}, {time.monotonic() - start:.0f} s of {seconds:.0f} s", flush=True)
        command = [sys.executable, "-m", "pytest", "tests/fuzz", f"--hypothesis-seed={seed}", *sys.argv[1:]]
        code = subprocess.run(command, env=os.environ | {"FUZZ_PROFILE": "long"}).returncode
        if code:
            print(f"again: FUZZ_SEED={seed} make fuzz")
            return code
        if time.monotonic() - start > seconds:
            return 0
        seed += 1


if __name__ == "__main__":
    sys.exit(main())
