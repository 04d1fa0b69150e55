"""The whole example in one command: train 30 epochs, generate 1000 points, draw the comparison, make the GIF.

    python run_swiss_roll_example.py

Takes the same flags as `swiss_roll_example.py`.
"""

import sys

from swiss_roll_example import main

if __name__ == "__main__":
    sys.exit(main(epochs=30, n_samples=1000))
