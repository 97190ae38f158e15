"""Between the watches and the reconcilers: what was observed, who has to look again, and how a plan is carried out."""
