"""The project beside its floors and its peers, one script a question: `python -m benchmarks.train_step`, and so on."""
