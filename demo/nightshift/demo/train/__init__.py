"""Training of the demo's two models; run `python -m nightshift.demo.train --help`."""
