"""Trainer against engine on a file of rollouts: rows read, re-scored, counted, shown on a console."""
