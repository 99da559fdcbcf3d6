"""Figures of calls: in this process, and as OpenTelemetry's own SDK collects them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from ovagent_jupyter.gateway.layer import Call
from ovagent_jupyter.gateway.metrics import RECENT, Figures, Metrics, percentile
from ovagent_jupyter.messages import Usage
from ovagent_jupyter.providers.client import ModelDelta
from tests.gateway.layered import ask, service, through
from tests.gateway.played import Clock, Played, answer, end, fails, read, read_until_failure, said

HERE = service()


def collected(reader: InMemoryMetricReader) -> dict[str, list[dict[str, object]]]:
    """Metric → sums, counts and attributes of its points."""
    data = reader.get_metrics_data()
    assert data is not None
    (resource,) = data.resource_metrics
    (scope,) = resource.scope_metrics
    return {
        metric.name: [
            {"sum": point.sum, "count": point.count, **dict(point.attributes or {})}
            for point in metric.data.data_points
        ]
        for metric in scope.metrics
    }


async def test_figures_of_each_backend() -> None:
    metrics = Metrics()
    client = Played([answer("a", usage=Usage(10, 5)), fails("overloaded", usage=Usage(3, 0))])
    await read(through(metrics, client, ask(to=HERE)))
    await read_until_failure(through(metrics, client, ask(to=HERE)))
    other = Played([[*said("x"), end("x", Usage(1, 1), cost=0.5)]])
    await read(through(metrics, other, ask(to=service("other"))))
    here, there = metrics.figures[HERE.name], metrics.figures["other/made-up-1"]
    assert (here.calls, here.errors, here.usage) == (2, {"overloaded": 1}, Usage(13, 5))
    assert (here.unpriced, here.cost) == (2, 0.0)
    assert (there.calls, there.cost, there.unpriced) == (1, 0.5, 0)
    assert len(here.latencies) == len(here.first_tokens) == 1
    assert [line.split(":")[0] for line in metrics.lines()] == [HERE.name, "other/made-up-1"]
    assert "1 overloaded" in metrics.lines()[0]
    assert "at least $0" in metrics.lines()[0]


async def test_times_are_those_of_the_clock() -> None:
    clock = Clock()
    metrics = Metrics(clock=clock)

    async def slow(call: Call) -> AsyncGenerator[ModelDelta, None]:
        clock.now += 2
        yield said("a")[0]
        clock.now += 3
        yield said("b")[0]
        clock.now += 1
        yield end("ab")

    await read(metrics(ask(to=HERE), slow))
    figures = metrics.figures[HERE.name]
    assert (list(figures.first_tokens), list(figures.latencies)) == ([2.0], [6.0])
    assert "first token 2.00 s" in figures.line()


async def test_who_stops_is_no_fault_of_the_backend_but_counted() -> None:
    metrics = Metrics()
    stream = through(metrics, Played([answer("a", "b")]), ask(to=HERE))
    async with aclosing(stream):
        await anext(stream)
    assert metrics.figures[HERE.name].errors == {"cancelled": 1}


async def test_answers_of_the_cache_have_no_part_in_the_times() -> None:
    last = end("x", Usage(), cost=0.0)
    assert last.reply is not None
    last = replace(last, reply=replace(last.reply, details={"cached": True}))
    metrics = Metrics()
    await read(through(metrics, Played([[last]]), ask(to=HERE)))
    figures = metrics.figures[HERE.name]
    assert (figures.calls, figures.cached, list(figures.latencies)) == (1, 1, [])


async def test_the_backend_that_answered_is_the_one_outside_of_routing() -> None:
    last = end("x")
    assert last.reply is not None
    last = replace(last, reply=replace(last.reply, backend="second"))
    metrics = Metrics()
    await read(through(metrics, Played([[last]]), ask()))
    assert list(metrics.figures) == ["second"]


async def test_opentelemetry_gets_the_same() -> None:
    reader, clock = InMemoryMetricReader(), Clock()
    provider = MeterProvider(metric_readers=[reader])
    metrics = Metrics(provider=provider, clock=clock)

    async def slow(call: Call) -> AsyncGenerator[ModelDelta, None]:
        clock.now += 2
        yield said("a")[0]
        clock.now += 4
        yield end("a", Usage(10, 5))

    await read(metrics(ask(to=HERE), slow))
    await read_until_failure(through(metrics, Played([fails()]), ask(to=HERE)))
    found = collected(reader)
    provider.shutdown()
    durations = found["gen_ai.client.operation.duration"]
    assert [(point["sum"], point.get("error.type")) for point in durations] == [
        (6.0, None),
        (0.0, "overloaded"),
    ]
    assert durations[0]["gen_ai.provider.name"] == "made-up"
    tokens = {
        point["gen_ai.token.type"]: point["sum"] for point in found["gen_ai.client.token.usage"]
    }
    assert tokens == {"input": 10, "output": 5}
    (first,) = found["gen_ai.client.operation.time_to_first_chunk"]
    (each,) = found["gen_ai.client.operation.time_per_output_chunk"]
    assert (first["sum"], each["sum"]) == (2.0, 4.0)


def test_percentiles_and_bounded_memory() -> None:
    figures = Figures()
    figures.latencies.extend(float(number) for number in range(RECENT * 3))
    assert len(figures.latencies) == RECENT
    assert percentile(deque([4.0]), 95) == 4.0
    assert percentile(deque(float(number) for number in range(101)), 95) == pytest.approx(95.0)
