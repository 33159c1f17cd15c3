"""What the programs measure on runs: attacks, evaluations, certificates, diagnostics."""
