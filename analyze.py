"""Tables, figures and the page, from finished runs; a study runs what is missing first."""

from intriguing.cli.analyze import run

if __name__ == "__main__":
    run()
