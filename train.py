"""Train one network, or sweep over many with -m."""

from intriguing.cli.train import run

if __name__ == "__main__":
    run()
