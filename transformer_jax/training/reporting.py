"""What a run has reached, said at its end: scores of the test split, examples, pictures, and where everything lies."""

import dataclasses
import json
from typing import Any

from jax.sharding import Mesh

from transformer_jax import processes
from transformer_jax.config import Experiment
from transformer_jax.data.sources import Pairs
from transformer_jax.files import write_atomically
from transformer_jax.models import Parameters
from transformer_jax.runs import RunFolder
from transformer_jax.training import evaluation
from transformer_jax.training.data import BatchMaker, Data
from transformer_jax.training.metrics import say
from transformer_jax.translation import Translator, read_parameters

SAMPLES = 5  # translations shown


def report(experiment: Experiment, folder: RunFolder, data: Data, mesh: Mesh) -> None:
    """Scores the checkpoint that the run is known by, on its test split, or else on that for validation."""
    params, step = read_parameters(folder, experiment, mesh)
    say(f"checkpoint of step {step:,} of {folder.checkpoints}")
    split, pairs = ("test", data.splits.test) if data.splits.test else ("validation", data.splits.validation)
    results: dict[str, Any] = {"step": step}
    if pairs is not None:
        reached = _Reached(experiment, folder, data, mesh, params, step)
        measure = reached.translated if experiment.objective.kind == "translation" else reached.measured
        results |= {"split": split, **measure(split, pairs)}
    if not processes.is_coordinator():
        return
    from transformer_jax import plots  # matplotlib, which takes a second to import, at the end of a run

    plots.curves(folder.metrics, folder.curves)
    write_atomically(folder.results, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    say(f"curves {folder.curves}, all of it in {folder.path}")


@dataclasses.dataclass(frozen=True)
class _Reached:
    """The checkpoint that a run is known by."""

    experiment: Experiment
    folder: RunFolder
    data: Data
    mesh: Mesh
    params: Parameters
    step: int

    def measured(self, split: str, pairs: Pairs) -> dict[str, Any]:
        """The loss of a split, and what else its objective is measured by."""
        maker = BatchMaker(self.experiment, self.data.tokenizers, self.mesh, self.folder.cache)
        batches = maker.evaluation(split, pairs)
        metrics = evaluation.measure(self.experiment, self.params, batches, pairs, split, self.mesh)
        say(f"{split}: " + ", ".join(f"{name.partition('/')[2]} {value:.4f}" for name, value in metrics.items()))
        return metrics

    def translated(self, split: str, pairs: Pairs) -> dict[str, Any]:
        """Translations of a split and their scores, some of them shown, and one drawn with its attention."""
        experiment, folder = self.experiment, self.folder
        translator = Translator(
            experiment.model,
            self.params,
            self.data.tokenizers,
            experiment.decoding,
            self.mesh,
            longest=experiment.batch.source_length,
        )
        tokenizer = experiment.evaluation.bleu_tokenizer
        translations, scores = evaluation.translate_and_score(translator, pairs, bleu_tokenizer=tokenizer)
        sources = pairs.sources or ()
        drawn = next((source for source in sources if source.strip()), None)
        attended = None if drawn is None else translator.attend(drawn)
        if processes.is_coordinator():
            text = evaluation.write_translations(folder.translations, split, translations, scores, step=self.step)
            for index in range(0, len(sources), -(-len(sources) // SAMPLES)):
                say(f"  {sources[index]}\n    -> {translations[index]}")
            if attended is not None:
                from transformer_jax import plots  # likewise

                plots.attention(attended, folder.attention)
            say(f"{split}: {scores}")
            say(f"translations {text}, attention {folder.attention}")
        return dataclasses.asdict(scores)
