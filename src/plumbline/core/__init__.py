"""Cards, claims, findings, records, errors: what every method is made of. Knows no method by name."""
