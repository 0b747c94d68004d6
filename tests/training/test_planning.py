"""Plans agree with counts by hand; what does not fit is told; the largest batch is that of trying all."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from transformer_jax import accelerators, programs, projection, topologies
from transformer_jax.config import BatchConfig, Experiment, MeshConfig, ModelConfig, Numerals, TrainingConfig
from transformer_jax.errors import InputError
from transformer_jax.runs import load_experiment
from transformer_jax.sharding import make_mesh
from transformer_jax.training import planning
from transformer_jax.training.planning import Memory, Plan, largest_batch, plan, trace
from transformer_jax.training.step import Trainer

BIG = Path(__file__).parents[2] / "experiments" / "wmt14_en_de_big.py"

MODEL = ModelConfig(
    encoder_layers=1, decoder_layers=1, width=6, num_heads=2, head_width=5, ffn_width=14, vocab_size=22, dropout=0.0
)
EXPERIMENT = Experiment(
    data=Numerals(),
    model=MODEL,
    batch=BatchConfig(rows=12, source_length=5, target_length=7),
    training=TrainingConfig(epochs=3, average_decay=0.9),
)
MESH = MeshConfig(data=2, fsdp=2, tensor=2)
FLOAT = 4  # bytes


def matrices(model):
    """Elements of all matrices of a model whose embeddings are one."""
    attention, feed_forward = 4 * model.width * model.num_heads * model.channels, 2 * model.width * model.ffn_width
    layers = model.encoder_layers * (attention + feed_forward) + model.decoder_layers * (2 * attention + feed_forward)
    return layers + model.vocab_size * model.width


def norms_and_biases(model):
    """Elements of all scales and biases: along the width, and along the feed-forward width."""
    layers = model.encoder_layers + model.decoder_layers
    norms = 2 * model.encoder_layers + 3 * model.decoder_layers
    return (2 * norms + layers) * model.width, layers * model.ffn_width


def step_flops(model, batch):
    """Two for each multiplication with its addition, and a gradient takes twice what its value takes."""
    heads = model.num_heads * model.channels
    source, target = batch.rows * batch.source_length, batch.rows * batch.target_length
    projection, feed_forward = model.width * heads, 2 * model.width * model.ffn_width
    encoder = source * (4 * projection + feed_forward) + 2 * source * batch.source_length * heads
    own = target * 4 * projection + 2 * target * batch.target_length * heads
    cross = (2 * target + 2 * source) * projection + 2 * target * batch.source_length * heads
    decoder = own + cross + target * feed_forward
    logits = target * model.width * model.vocab_size
    return 3 * 2 * (model.encoder_layers * encoder + model.decoder_layers * decoder + logits)


@pytest.fixture(scope="module")
def made():
    return plan(EXPERIMENT, make_mesh(MESH))


def traced_flops(experiment, mesh):
    return programs.flops_of(trace(Trainer(experiment, make_mesh(mesh), total_steps=1)).jaxpr)


class TestCounts:
    def test_parameters(self, made):
        assert made.parameters == matrices(MODEL) + sum(norms_and_biases(MODEL))

    def test_flops(self, made):
        assert made.flops == pytest.approx(step_flops(MODEL, EXPERIMENT.batch), rel=0.02)

    @pytest.mark.parametrize("parts", [{}, {"accumulation": 3}], ids=str)
    def test_flops_of_stacks_of_other_depths(self, parts):
        model = replace(MODEL, encoder_layers=10, decoder_layers=3, dropout=0.1)  # 10 layers are not unrolled
        experiment = replace(EXPERIMENT, model=model, training=TrainingConfig(steps=1, **parts))
        expected = step_flops(model, experiment.batch)
        assert traced_flops(experiment, MESH) == pytest.approx(expected, rel=0.02)

    @pytest.mark.parametrize(
        "parts", [{}, {"gated": True, "num_heads": 4, "kv_heads": 2, "encoder_layers": 2, "head_width": 3}], ids=str
    )
    def test_operations_by_formula_are_those_that_are_traced(self, parts):
        experiment = replace(EXPERIMENT, model=replace(MODEL, **parts))
        assert planning.step_operations(experiment) == pytest.approx(traced_flops(experiment, MESH), rel=0.02)

    def test_operations_by_formula_count_nothing_twice(self):
        again = replace(EXPERIMENT, training=replace(EXPERIMENT.training, remat="full"))
        assert planning.step_operations(again) == planning.step_operations(EXPERIMENT)
        assert traced_flops(again, MESH) > 1.2 * planning.step_operations(again)

    def test_flops_of_the_big_model(self, monkeypatch):
        experiment = load_experiment(BIG)
        counted = step_flops(experiment.model, experiment.batch)
        assert counted == 32_954_344_538_112 == planning.step_operations(experiment)
        logits = 2 * experiment.batch.rows * experiment.batch.target_length * 1024 * 37_000
        assert traced_flops(experiment, MeshConfig(fsdp=2)) == counted  # of 8 devices, which keep their logits
        monkeypatch.setattr(projection, "LARGEST", 2**28)
        assert traced_flops(experiment, MeshConfig(fsdp=2)) == counted + logits  # by blocks of words, once more

    def test_bytes_of_a_device_by_kind(self, made):
        of_width, of_ffn = norms_and_biases(MODEL)
        parameters = FLOAT * (
            matrices(MODEL) // 4 + of_width // 2 + of_ffn // 2
        )  # fsdp and tensor cut them in two each
        memory = made.memory
        assert memory.parameters == parameters
        assert memory.optimizer == 3 * parameters + 2 * FLOAT  # two moments, the moving average, two counts
        assert memory.batch == 12 // 4 * FLOAT * (3 * 5 + 5 * 7)
        assert memory.progress > 0

    def test_the_compiler_takes_what_was_counted(self, made):
        """All else is the program's own: its report, the flags that ask it to stop, and pointers to its results."""
        pointers = 8 * len(jax.tree.leaves(Trainer(EXPERIMENT, make_mesh(MESH), 1).abstract_state))
        assert 0 < made.memory.program <= pointers + 100
        assert made.memory.activations > 0

    def test_collectives(self, made):
        kinds = programs.moved_by_kind(made.collectives)
        assert kinds["all-reduce"][1] > made.memory.parameters  # the gradients, if nothing else
        assert "all-gather" in kinds


class TestEstimate:
    def test_hours_of_the_big_model_by_hand(self):
        made = planning.estimate(load_experiment(BIG), "A100", 8)
        assert (made.kind, made.count, made.share, made.steps) == ("NVIDIA A100", 8, 0.45, 300_000)
        seconds = 32_954_344_538_112 / (8 * 312e12 * 0.45)
        assert made.seconds == pytest.approx(seconds)
        assert made.hours == pytest.approx(300_000 * seconds / 3600) == pytest.approx(2.445, abs=5e-4)

    def test_twice_the_devices_or_the_share_is_half_the_time(self):
        experiment = replace(EXPERIMENT, training=TrainingConfig(steps=7))
        one = planning.estimate(experiment, "v5e", 1, share=0.25)
        assert one.seconds == planning.step_operations(experiment) / (197e12 * 0.25)
        for other in (planning.estimate(experiment, "v5e", 2, 0.25), planning.estimate(experiment, "v5e", 1, 0.5)):
            assert 2 * other.hours == one.hours == pytest.approx(7 * one.seconds / 3600)

    def test_what_is_assumed_is_less_for_narrow_models(self):
        assert planning.assumed_share(EXPERIMENT) == 0.3
        assert planning.assumed_share(load_experiment(BIG)) == 0.45

    def test_short_names_are_those_of_one_device_each(self):
        names = accelerators.SHORT_NAMES
        assert (names["h100"], names["a100-80gb-pcie"]) == ("NVIDIA H100", "NVIDIA A100 80GB PCIe")
        assert len({*names.values()}) == len(names)
        assert all(accelerators.peak_operations(kind) for kind in names.values())

    def test_mistakes(self):
        with pytest.raises(InputError, match=r"--on p100:8: no such device; known are a10, .*v5e"):
            planning.estimate(load_experiment(BIG), "p100", 8)
        with pytest.raises(InputError, match=r"training\.epochs=3 .* --training\.steps N"):
            planning.estimate(EXPERIMENT, "h100", 8)


class TestFit:
    def test_a_budget(self, made):
        assert made.fits
        assert replace(made, budget=made.memory.total).fits
        assert not replace(made, budget=made.memory.total - 1).fits

    def test_a_compiler_that_gives_up_says_what_it_would_need(self, monkeypatch):
        def compile(self):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries\n"
                "(18.5G) exceeds available HBM (15.75G)."
            )

        monkeypatch.setattr(jax.stages.Lowered, "compile", compile)
        refused = plan(EXPERIMENT, make_mesh(MESH))
        assert not refused.fits
        assert refused.memory.total == 18.5 * 2**30
        assert refused.collectives is None
        assert refused.refusal.endswith("temporaries (18.5G) exceeds available HBM (15.75G).")

    def test_another_failure_is_raised(self, monkeypatch):
        def compile(self):
            raise jax.errors.JaxRuntimeError("INTERNAL: a bug")

        monkeypatch.setattr(jax.stages.Lowered, "compile", compile)
        with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
            plan(EXPERIMENT, make_mesh(MESH))

    def test_rows_that_the_devices_cannot_share(self):
        experiment = replace(EXPERIMENT, batch=BatchConfig(rows=6))
        with pytest.raises(InputError, match=r"batch.rows=6: not a multiple of the 4 devices .*; 4 or 8 would be"):
            plan(experiment, make_mesh(MESH))


class TestLargestBatch:
    @pytest.mark.parametrize("start", [1, 12, 100])
    @pytest.mark.parametrize(
        "total",
        [
            lambda rows: 1000 + 37 * rows,
            lambda rows: 1000 + max(700, 37 * rows),  # small batches need less than the optimizer
            lambda rows: 1000 + 40 * (-(-rows // 32) * 32),  # in tiles
            lambda rows: 1000 + 3 * rows**2,
            lambda rows: 1000 + 37 * rows if rows < 60 else None,  # a compiler that gives up without a number
        ],
        ids=["affine", "flat", "tiles", "square", "silent"],
    )
    def test_is_that_of_trying_all(self, total, start, monkeypatch):
        def made(experiment, mesh, budget):
            needs = total(experiment.batch.rows)
            return Plan(experiment, 0, 0, Memory(200, 400, 0, 0, 0, needs), budget, (), None if needs else "no")

        monkeypatch.setattr(planning, "plan", made)
        experiment = replace(
            EXPERIMENT, batch=BatchConfig(rows=start * 12), training=TrainingConfig(steps=1, accumulation=3)
        )
        told = []
        best = largest_batch(experiment, make_mesh(MESH), 5000, told.append)
        fitting = [rows for rows in range(12, 1200, 12) if (total(rows) or 5001) <= 5000]
        assert best.experiment.batch.rows == fitting[-1]
        assert fitting[-1] + 12 in [plan.experiment.batch.rows for plan in told]
        assert len(told) <= 8

    def test_nothing_fits(self, monkeypatch):
        needs = Memory(200, 400, 0, 0, 0, total=5001)
        monkeypatch.setattr(planning, "plan", lambda experiment, *_: Plan(experiment, 0, 0, needs, 5000, (), None))
        best = largest_batch(EXPERIMENT, make_mesh(MESH), 5000, lambda plan: None)
        assert not best.fits
        assert best.experiment.batch.rows == 4

    def test_with_a_compiler(self, made, monkeypatch):
        compiled, compile = {12: made}, planning.plan

        def once(experiment, mesh, budget):
            rows = experiment.batch.rows
            if rows not in compiled:
                compiled[rows] = compile(experiment, mesh)
            return replace(compiled[rows], budget=budget)

        monkeypatch.setattr(planning, "plan", once)
        best = largest_batch(EXPERIMENT, make_mesh(MESH), made.memory.total + 1000, lambda plan: None)
        assert best.experiment.batch.rows == 12
        assert compiled[16].memory.total > best.budget  # every row takes more than 250 bytes


@pytest.mark.slow
def test_the_big_model_on_256_simulated_devices():
    flags = ["--mesh.data", "16", "--mesh.fsdp", "16", "--batch.rows", "256"]
    command = [sys.executable, "-m", "transformer_jax.cli.main", "plan", BIG, *flags]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "parameters       214,171,648" in result.stdout
    assert "rematerialization" not in result.stderr


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason='the TPU compiler is missing: pip install ".[tpu]"'
)
class TestTpu:
    def test_a_step(self, made, capfd):
        mesh = make_mesh(MESH, topologies.tpus("v5e:2x4"))
        on_tpu = plan(EXPERIMENT, mesh, topologies.memory("v5e:2x4"))
        assert on_tpu.fits
        assert (on_tpu.parameters, on_tpu.flops) == (made.parameters, made.flops)
        exact = {"activations": None, "total": None}
        assert replace(on_tpu.memory, **exact) == replace(made.memory, **exact)
        assert on_tpu.memory.program > 0
        assert programs.moved_by_kind(on_tpu.collectives)["all-gather"][1] > 0
        assert "rematerialization" not in capfd.readouterr().err  # of embeddings that the compiler cannot keep split

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "fsdp", "rows"), [("v5e:2x4", 2, 96), ("v5e:16x16", 16, 256), ("v5p:4x4x4", 8, 128)]
    )
    def test_the_big_model(self, name, fsdp, rows, capfd):
        """Minutes each. No device ever holds the table of all words, and nothing is computed again for its sake."""
        experiment = load_experiment(BIG)
        experiment = replace(experiment, batch=replace(experiment.batch, rows=rows))
        mesh = make_mesh(MeshConfig(fsdp=fsdp), topologies.tpus(name))
        made = plan(experiment, mesh, topologies.memory(name))
        assert made.fits
        assert made.parameters == 214_171_648
        gathered = [shape for move in made.collectives if move.kind == "all-gather" for shape in move.shapes]
        assert gathered
        assert (37_000, 1024) not in gathered
        assert "rematerialization" not in capfd.readouterr().err

    def test_a_step_that_does_not_fit(self):
        experiment = replace(EXPERIMENT, batch=replace(EXPERIMENT.batch, rows=2**26))
        refused = plan(experiment, make_mesh(MESH, topologies.tpus("v5e:2x4")))
        assert not refused.fits
        assert refused.memory.total > topologies.memory("v5e:2x4")

    @pytest.mark.parametrize("name", ["v4:2x2x2", "v5p:4x4x4", "v6e:2x4"])
    def test_topologies(self, name):
        devices = topologies.tpus(name)
        mesh = make_mesh(MeshConfig(fsdp=2), devices)
        assert mesh.size == len(devices) == {"v4:2x2x2": 8, "v5p:4x4x4": 64, "v6e:2x4": 8}[name]
        assert topologies.memory(name) > 2**34

    @pytest.mark.parametrize("name", ["v5e", "v5e:3x3", "v99:2x2"])
    def test_a_topology_that_is_not(self, name):
        with pytest.raises(InputError, match=rf"--topology {name}: no such TPU .*; such as v4:2x2x2, v5e:2x4"):
            topologies.tpus(name)
