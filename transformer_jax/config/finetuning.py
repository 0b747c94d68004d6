"""What is changed of a checkpoint that a run starts from."""

from transformer_jax.checked import config, require


@config
class FinetuningConfig:
    """What is changed of the checkpoint of `init_from`: its languages, and new words."""

    source_language: str | None = None  # of a checkpoint of many languages, as it writes them
    target_language: str | None = None  # likewise
    new_tokens: tuple[str, ...] = ()  # pieces that the vocabulary gets, and that are cut out of the text whole

    def __post_init__(self) -> None:
        require(all(self.new_tokens), "new_tokens: one of them is empty")
        require(len(set(self.new_tokens)) == len(self.new_tokens), f"new_tokens={self.new_tokens}: one is there twice")
