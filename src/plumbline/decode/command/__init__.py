"""What `plumbline decode` and `plumbline detect` do: methods composed, prompts read, passes counted, text shown."""
