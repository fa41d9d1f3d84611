"""Attack trained networks: any number of checkpoints in, one adversarial set each out."""

from intriguing.cli.attack import run

if __name__ == "__main__":
    run()
