"""Inputs of every kind for comparisons of tiny models."""

PROMPTS = [
    {"id": "sea", "prompt": "Where does the river go?", "tags": ["benign"], "answer": "the sea"},
    {"id": "sum", "prompt": "Add 12 and 30 to get", "answer": "42"},
    {"id": "letter", "messages": [{"role": "user", "content": "please write a short letter"}], "tags": ["writing"]},
    {"id": "given", "prompt": "The quick brown fox", "completion": " jumps over the lazy dog."},
]
QA = [
    {"id": f"q{i}", "question": f"Two and {i} make", "choices": ["four", "six", "eight"], "answer": i % 3}
    for i in range(12)
]
TEXTS = [{"id": f"t{i}", "text": "In the morning the sun rises in the east. " * (i + 1)} for i in range(3)]
