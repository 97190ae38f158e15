"""What runs in Codetune's Jobs: `scan`, `fetch`, `train`, `purge`. Knows files and models, nothing of Kubernetes."""
