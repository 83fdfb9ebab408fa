"""The benchmarks' own parts: what they make of results, without a broker."""

import json
from xml.etree import ElementTree

from pamqp import commands, frame
from pamqp.header import ContentHeader

from benchmarks import markdown, plot, report
from benchmarks.targets import TARGETS
from benchmarks.wire import Address, renewed
from benchmarks.works import growths, works


def found(cpu: float) -> report.Found:
    rounds = [{"cpu_us": cpu + extra, "rate": 1e6 / cpu, "rss_mb": 40.0} for extra in (0.0, 5.0, 1.0)]
    group = report.Group("consume", "Consume", [report.row("autosell-rmq", "classic", rounds)])
    group.rows.append(report.row("C, librabbitmq", "classic", "no C compiler"))
    return report.Found(report.machine("3.10.8", {"peers": {"pika": "1.3"}}), [group])


def test_a_row_is_the_median_of_its_rounds() -> None:
    assert found(10.0).get("consume", "autosell-rmq", "cpu_us") == 11.0


def test_a_number_is_reached_missed_or_not_measured() -> None:
    [target] = [t for t in TARGETS if t.what == "CPU of a message consumed"]
    [least] = [t for t in TARGETS if t.what == "rate beside FastStream" and t.work == "consume"]

    assert target.verdict(found(14.0)) == ("15.0 µs", "reached")
    assert target.verdict(found(14.1)) == ("15.1 µs", "missed")
    assert least.verdict(found(10.0)) == ("–", "not measured")


def test_every_number_is_about_a_row_that_the_short_run_measures() -> None:
    titles = {work.key: {case.title for case in work.cases} for work in works(full=False)}
    asked: set[tuple[str, str]] = set()

    class Recorder(report.Found):
        def get(self, work: str, row: str, field_: str) -> float | None:
            asked.add((work, row))
            return 1.0

    for target in TARGETS:
        target.verdict(Recorder({}))

    assert {(work, row) for work, row in asked if row not in titles[work]} == set()


def test_rows_of_one_work_have_names_of_their_own() -> None:
    for work in works(full=True):
        titles = [case.title for case in work.cases]
        assert len(titles) == len(set(titles)), work.key


def test_the_page_has_every_row_and_says_why_one_is_missing() -> None:
    page = markdown.page(found(10.0), [("Growth", "benchmarks/size.svg")])

    assert "| autosell-rmq | classic | 11.0 |" in page
    assert "*no C compiler*" in page
    assert "![Growth](benchmarks/size.svg)" in page


def test_the_json_has_every_round() -> None:
    data = json.loads(found(10.0).as_json())

    assert [r["cpu_us"] for r in data["groups"]["consume"]["rows"]["autosell-rmq"]["rounds"]] == [10, 15, 11]


def test_a_picture_is_xml_with_a_line_for_each_client() -> None:
    lines = {"ours": {1: 10.0, 1000: 11.0}, "theirs & others": {1: 90.0, 1000: 120.0}}
    root = ElementTree.fromstring(plot.svg("Cost", "prefetch", "µs", lines))

    texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"ours", "theirs & others", "Cost"} <= texts


def test_a_curve_has_each_client_at_each_point() -> None:
    for growth in growths():
        points = [(point, case.client.name) for point, case in growth.cases()]
        assert len(points) == len(set(points)) == len(growth.points) * len(growth.clients)
        assert {getattr(case, growth.axis) for _, case in growth.cases()} == set(growth.points)


def test_a_copy_has_ids_of_its_own_and_nothing_else_that_is_new() -> None:
    properties = commands.Basic.Properties(
        message_id="0" * 32, correlation_id="0" * 8 + "-0000" * 3 + "-" + "0" * 12
    )
    whole = frame.marshal(ContentHeader(body_size=3, properties=properties), 1)
    ids = {b"0" * 32, (properties.correlation_id or "").encode()}

    copy = frame.unmarshal(renewed(whole, ids))[2]

    assert isinstance(copy, ContentHeader)
    assert copy.body_size == 3
    assert copy.properties is not None
    assert copy.properties.message_id not in (None, properties.message_id)
    assert len(copy.properties.correlation_id or "") == 36
    assert copy.properties.correlation_id != properties.correlation_id


def test_an_address_has_the_brokers_defaults() -> None:
    assert Address.of("amqp://u%40:p%2F@rabbit/") == Address("rabbit", 5672, "u@", "p/", "/")
    assert Address.of("amqp://h:1/v%2Fw").vhost == "v/w"
