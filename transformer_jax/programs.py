"""Reading programs before they run: the matrix products of a traced function, the collectives of a compiled one."""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")


def flops_of(traced: Any) -> int:
    """Operations of all matrix products and convolutions of a function, two for each multiplication with its addition.

    Counted as the function is written, before it is split over devices: bodies of scans by their length, both
    directions of a gradient, and what is computed a second time for less memory. Of a condition the dearest branch
    counts; the body of a loop of unknown length counts once.

    Args:
        traced: the function, by `jax.make_jaxpr` or as the `jaxpr` of `jax.stages.Traced`.
    """
    return sum(map(_flops_of_equation, traced.eqns))


def _flops_of_equation(equation: Any) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        return 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, out = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
        features = kernel[parameters["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(out) * math.prod(kernel) // features
    inner = [flops_of(jaxpr) for value in parameters.values() for jaxpr in _jaxprs(value)]
    if name == "cond":
        return max(inner, default=0)
    return sum(inner) * _repetitions(name, parameters)


def _repetitions(name: str, parameters: dict[str, Any]) -> int:
    """How often an equation runs the programs it holds."""
    if name == "scan":
        return int(parameters["length"])
    if name == "shard_map":  # whose program is that of one device
        sizes = parameters["mesh"].shape
        axes = next(value for key, value in parameters.items() if key.endswith("manual_axes"))  # "newly_", in jax 0.10
        return math.prod(sizes[axis] for axis in axes)
    return 1


def _jaxprs(value: Any) -> Iterator[Any]:
    """The programs in a parameter of an equation, told by their looks: their types are not public."""
    if isinstance(value, tuple | list):
        for item in value:
            yield from _jaxprs(item)
    elif hasattr(value, "eqns"):
        yield value
    elif hasattr(getattr(value, "jaxpr", None), "eqns"):
        yield value.jaxpr


@dataclasses.dataclass(frozen=True)
class Collective:
    """One instruction that moves data between devices.

    Attributes:
        kind: as XLA calls it, such as "all-gather".
        results: (element type, shape) of each array that it leaves on a device.
        group: devices that exchange data with one another.
        times: runs in one call of the program, by the loops around it.
    """

    kind: str
    results: tuple[tuple[str, tuple[int, ...]], ...]
    group: int
    times: int

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each result on a device, without axes of size 1, which compilers add and drop."""
        return tuple(tuple(size for size in shape if size != 1) for _, shape in self.results)

    @property
    def moved(self) -> int:
        """Bytes that a device receives in all its runs, where data goes around the group in a ring.

        Of n devices a device lacks (n - 1) / n of what it gathers or exchanges; reducing a result takes as much as
        gathering it, and n - 1 results pass by where a device keeps one of them.
        """
        held = sum(_bits(kind) * math.prod(shape) for kind, shape in self.results) // 8
        others = self.group - 1
        once = {
            "all-reduce": 2 * held * others // self.group,
            "reduce-scatter": held * others,
            "all-gather": held * others // self.group,
            "all-to-all": held * others // self.group,
        }.get(self.kind, held)
        return once * self.times


def _bits(element_type: str) -> int:
    """Bits of f32, bf16, s4, f8e4m3fn, c64 and the like; the sizeless types hold no data."""
    if element_type == "pred":
        return 8
    width = re.search(r"\d+", element_type)
    return int(width.group()) if width else 0


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    type: str  # of the result, with layouts
    operation: str
    rest: str  # operands and attributes
    is_root: bool  # its result is that of its computation

    @property
    def attributes(self) -> dict[str, str]:
        """The computations that it calls, by attribute."""
        return dict(re.findall(r"\b(calls|to_apply|body|condition)=%?([\w.-]+)", self.rest))

    @property
    def operands(self) -> list[str]:
        """The names of what it takes."""
        return re.findall(r"%([\w.-]+)", re.sub(r"\{.*?\}", "", self.rest).partition(")")[0])

    @property
    def value(self) -> int:
        """Of a constant that is a whole number; 0 of all else."""
        written = re.match(r"(\d+)\)", self.rest)
        return int(written.group(1)) if self.operation == "constant" and written else 0

    @property
    def branches(self) -> list[str]:
        lists = re.findall(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}", self.rest)
        names = [name.strip().lstrip("%") for part in lists for name in part.split(",")]
        return names + re.findall(r"\b(?:true|false)_computation=%?([\w.-]+)", self.rest)


_Computations = dict[str, list[_Instruction]]


def collectives(text: str) -> list[Collective]:
    """The collectives of a compiled program, `compiled.as_text()`, as CPU, GPU and TPU compilers write it.

    What a TPU compiler names as an all-reduce inside of "all-reduce-scatter" is a reduce-scatter. Parts of an
    instruction that runs beside others (start, done, and what is fused between) count as one; rounds of a loop that
    are written out, which share a channel, count each. A loop counts by its length, or else up to the constant that its
    condition compares, from 0 in steps of the constant that its body adds, or of 1; where there is none, as one run. Of
    a condition every branch counts.
    """
    computations, entry, devices = _parse(text)
    found = []

    def walk(computation: str, times: int) -> None:
        for instruction in computations.get(computation, []):
            kind = instruction.operation.removesuffix("-start")
            if kind in _KINDS:
                found.append(_collective(computation, instruction, computations, devices, times))
            elif not kind.endswith(("-update", "-done")):  # which name again what their start has run
                called = instruction.attributes
                inner = times * _trips(instruction, computations) if "body" in called else times
                for name in [*called.values(), *instruction.branches]:
                    if not _repeats(name, computations):
                        walk(name, inner)

    walk(entry, 1)
    return found


def _repeats(computation: str, computations: _Computations) -> bool:
    """Whether a computation names again what another has started, as a TPU compiler does to run others beside it."""
    done = any("AsyncCollectiveDone" in instruction.rest for instruction in computations.get(computation, []))
    return done or computation.startswith("async_collective_fusion")


def moved_by_kind(found: Iterable[Collective]) -> dict[str, tuple[int, int]]:
    """For each kind of collective how many run in one call of the program, and the bytes that a device receives."""
    total: dict[str, tuple[int, int]] = {}
    for one in found:
        runs, moved = total.get(one.kind, (0, 0))
        total[one.kind] = (runs + one.times, moved + one.moved)
    return total


def _parse(text: str) -> tuple[_Computations, str, int]:
    """The instructions of each computation, the name of the entry, the number of devices."""
    computations: _Computations = {}
    entry, current = "", []
    for line in text.splitlines():
        header = re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line)
        if header:
            current = computations[header.group(2)] = []
            entry = header.group(2) if header.group(1) else entry
        elif line.startswith("  "):
            instruction = _instruction(line)
            if instruction is not None:
                current.append(instruction)
    counts = [int(count) for count in re.findall(r"\b(?:num_partitions|replica_count)=(\d+)", text.partition("\n")[0])]
    return computations, entry, math.prod(counts)


def _instruction(line: str) -> _Instruction | None:
    line = line.strip()
    name, equals, value = line.removeprefix("ROOT ").partition(" = ")
    if not equals:
        return None
    end = _end_of_type(value)
    operation, _, rest = value[end:].strip().partition("(")
    return _Instruction(name.lstrip("%"), value[:end], operation, rest, line.startswith("ROOT "))


def _end_of_type(value: str) -> int:
    """Where the type ends that the text begins with: an array's at a space, a tuple's at its parenthesis."""
    if not value.startswith("("):
        return value.find(" ")
    depth = 0
    for place, character in enumerate(value):
        depth += (character == "(") - (character == ")")
        if not depth:
            return place + 1
    return len(value)


def _collective(
    computation: str, instruction: _Instruction, computations: _Computations, devices: int, times: int
) -> Collective:
    kind, result = instruction.operation, instruction.type
    if computation.startswith("all-reduce-scatter"):
        kind, (result,) = "reduce-scatter", [one.type for one in computations[computation] if one.is_root]
    elif kind.endswith("-start"):
        kind = kind.removesuffix("-start")
        if kind != "all-reduce":  # the others start with (operands, results, and what the device needs beside)
            result = _elements(result)[1]
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", result)
    results = tuple((element, tuple(int(size) for size in sizes.split(",") if size)) for element, sizes in arrays)
    return Collective(kind, results, _group(instruction.rest, devices), times)


def _elements(tuple_type: str) -> list[str]:
    """The types in a tuple."""
    rest, elements = tuple_type[1:-1], []
    while rest:
        rest = re.sub(r"^(?:[\s,]|/\*.*?\*/)*", "", rest)
        end = _end_of_type(rest + " ")
        elements.append(rest[:end])
        rest = rest[end:]
    return elements


def _group(attributes: str, devices: int) -> int:
    """The size of a group of devices in each of the ways that XLA writes groups; where it names none, all devices."""
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", attributes)
    if listed:
        return len(listed.group(1).split(","))
    counted = re.search(r"replica_groups=\[\d+,(\d+)\]", attributes)  # [groups, size]<=[...]
    if counted:
        return int(counted.group(1))
    meshed = re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", attributes)  # mesh['a'=4,'b'=2] {'a'}
    if meshed:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", meshed.group(1)))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", meshed.group(2))  # 'a':(2)4 is a part of an axis, of size 4
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    return devices


def _trips(loop: _Instruction, computations: _Computations) -> int:
    """How often a loop runs: XLA says so, or its condition is that a counter, from 0, is less than a constant."""
    known = re.search(r"known_trip_count\D+(\d+)", loop.rest)
    if known:
        return int(known.group(1))
    named = {one.name: one for one in computations.get(loop.attributes["condition"], [])}
    compared = next((one.operands for one in named.values() if one.is_root and "direction=LT" in one.rest), [])
    if len(compared) != 2 or not all(name in named for name in compared):
        return 1
    counter, limit = (named[name] for name in compared)
    return -(-limit.value // _step(counter, computations[loop.attributes["body"]])) if limit.value else 1


def _step(counter: _Instruction, body: list[_Instruction]) -> int:
    """What a round of a loop adds to its counter, an element of what it carries: 1, unless the body adds a constant."""
    place = re.search(r"\bindex=(\d+)", counter.rest)
    named = {one.name: one for one in body}
    carried = next((one.operands for one in body if one.is_root and one.operation == "tuple"), [])
    name = dict(enumerate(carried)).get(int(place.group(1))) if place else None
    terms = named[name].operands if name in named and named[name].operation == "add" else []
    return next((named[term].value for term in terms if term in named and named[term].value), 1)
