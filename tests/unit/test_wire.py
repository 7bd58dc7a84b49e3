"""The forms in which events come, and what is said of those that are not well formed."""

import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing_site.http.problems import BodyTooLarge, DomainError, Invalid, MalformedJson, UnknownField
from metering.api import wire
from metering.services.requests import NewEvent, Rejected

JSON = {"content-type": "application/json"}
STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}
BATCH = {"content-type": "application/cloudevents-batch+json"}

EVENT = {
    "id": "req_81f",
    "source": "gateway-eu",
    "type": "llm.completion",
    "subject": "org_7890",
    "time": "2026-11-23T10:00:00Z",
    "data": {"model": "opus", "input_tokens": 1200},
}
CLOUD_EVENT = {"specversion": "1.0", "datacontenttype": "application/json", **EVENT}
READ = NewEvent(
    subject="org_7890",
    source="gateway-eu",
    id="req_81f",
    type="llm.completion",
    time=datetime(2026, 11, 23, 10, tzinfo=UTC),
    data={"model": "opus", "input_tokens": 1200},
)


def parse(document, headers=JSON):
    return wire.parse(json.dumps(document).encode(), headers)


def rejected(change, headers=JSON, event=EVENT):
    """Parse the event with some members changed (... leaves one out), and return what is said of it."""
    document = {name: value for name, value in {**event, **change}.items() if value is not ...}
    parsed = parse(document, headers)
    assert parsed.single
    (answer,) = parsed.events
    assert isinstance(answer, Rejected), answer
    return answer


def accepted(change, headers=JSON, event=EVENT):
    document = {name: value for name, value in {**event, **change}.items() if value is not ...}
    (answer,) = parse(document, headers).events
    assert isinstance(answer, NewEvent), answer
    return answer


class TestForms:
    def test_one_object_is_one_event(self):
        assert parse(EVENT) == wire.Parsed(single=True, events=[READ])

    def test_an_array_is_a_batch_even_of_one(self):
        assert parse([EVENT]) == wire.Parsed(single=False, events=[READ])

    def test_a_wrapped_array_is_a_batch(self):
        assert parse({"events": [EVENT, EVENT]}) == wire.Parsed(single=False, events=[READ, READ])

    def test_nothing_may_stand_beside_a_wrapped_array(self):
        with pytest.raises(UnknownField) as caught:
            parse({"events": [EVENT], "dry_run": True})
        assert caught.value.errors[0].path == "dry_run"

    @pytest.mark.parametrize("document", [{"events": {"0": EVENT}}, {"events": None}, "event", 1, None])
    def test_what_is_no_event_and_no_batch_is_not_valid(self, document):
        with pytest.raises(Invalid):
            parse(document)

    @pytest.mark.parametrize("document", [[], {"events": []}])
    def test_an_empty_batch_is_refused(self, document):
        with pytest.raises(wire.EmptyBatch) as caught:
            parse(document)
        assert caught.value.status == 400

    def test_a_thousand_events_are_read_and_one_more_is_refused(self):
        assert len(parse([EVENT] * 1000).events) == 1000
        with pytest.raises(BodyTooLarge):
            parse([EVENT] * 1001)

    def test_a_structured_cloud_event_says_the_same(self):
        assert parse(CLOUD_EVENT, STRUCTURED) == wire.Parsed(single=True, events=[READ])

    def test_a_batch_of_cloud_events_says_the_same(self):
        assert parse([CLOUD_EVENT], BATCH) == wire.Parsed(single=False, events=[READ])

    @pytest.mark.parametrize(("document", "headers"), [([CLOUD_EVENT], STRUCTURED), (CLOUD_EVENT, BATCH)])
    def test_the_media_type_of_a_cloud_event_decides_between_one_and_many(self, document, headers):
        with pytest.raises(Invalid):
            parse(document, headers)

    def test_a_plain_body_may_mix_both_kinds(self):
        assert parse([CLOUD_EVENT, EVENT]).events == [READ, READ]

    def test_binary_mode_has_attributes_in_headers_and_data_in_the_body(self):
        headers = JSON | {f"ce-{name}": value for name, value in CLOUD_EVENT.items() if isinstance(value, str)}
        headers.pop("ce-datacontenttype")
        body = json.dumps(EVENT["data"]).encode()
        assert wire.parse(body, headers | {"ce-traceparent": "00-1"}) == wire.Parsed(single=True, events=[READ])

    def test_binary_mode_without_a_body_has_no_data(self):
        headers = JSON | {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/a", "ce-type": "t", "ce-subject": "org"}
        assert wire.parse(b"", headers).events == [NewEvent("org", "/a", "1", "t", None, {})]

    def test_binary_headers_are_percent_decoded_and_unquoted(self):
        headers = JSON | {
            "ce-specversion": "1.0", "ce-id": '"a\\"b"', "ce-source": "/a", "ce-type": "caf%C3%A9", "ce-subject": "org"
        }  # fmt: skip
        (event,) = wire.parse(b"{}", headers).events
        assert (event.id, event.type) == ('a"b', "café")

    def test_binary_headers_are_ascii(self):
        with pytest.raises(Invalid):
            wire.parse(b"{}", JSON | {"ce-specversion": "1.0", "ce-id": "é"})

    def test_a_binary_event_without_its_version_is_named_as_such(self):
        (answer,) = wire.parse(b"{}", JSON | {"ce-id": "1"}).events
        assert (answer.path, answer.id) == ("specversion", "1")

    def test_data_in_a_header_does_not_count(self):
        headers = JSON | {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/a", "ce-type": "t", "ce-subject": "o"}
        assert wire.parse(b"", headers | {"ce-data": "x"}).events[0].data == {}

    @pytest.mark.parametrize("kind", ["text/plain", "application/xml", "", "application/json; charset=foo"])
    def test_other_media_types_are_refused(self, kind):
        with pytest.raises(DomainError) as caught:
            wire.parse(b"{}", {"content-type": kind})
        assert caught.value.status == 415

    def test_gzip_is_unpacked_and_bounded_after_unpacking(self):
        packed = gzip.compress(json.dumps([EVENT] * 3).encode())
        assert len(wire.parse(packed, JSON | {"content-encoding": "gzip"}).events) == 3
        bomb = gzip.compress(b" " * (5 * 1024 * 1024 + 1))
        assert len(bomb) < 10_000
        with pytest.raises(BodyTooLarge):
            wire.parse(bomb, JSON | {"content-encoding": "gzip"})


class TestMembers:
    def test_source_defaults_and_time_and_data_may_be_absent_or_null(self):
        bare = NewEvent("org_7890", "default", "req_81f", "llm.completion", None, {})
        assert accepted({"source": ..., "time": ..., "data": ...}) == bare
        assert accepted({"source": None, "time": None, "data": None}) == bare

    @pytest.mark.parametrize("key", ["!", "~", "a" * 255, "A", "urn:x?y=z"])
    def test_ids_and_sources_are_printable_ascii_kept_as_they_are(self, key):
        event = accepted({"id": key, "source": key})
        assert (event.id, event.source) == (key, key)

    @pytest.mark.parametrize(
        "key", ["", " ", "a b", "a" * 256, "a\nb", "a\r\nX-Evil: 1", "\u202ea", "é", "\x7f", 1, None, True, ["a"], {}]
    )
    def test_other_ids_are_rejected(self, key):
        answer = rejected({"id": key})
        assert (answer.id, answer.code, answer.path) == (None, "validation", "id")
        if key is not None:
            assert rejected({"source": key}).path == "source"

    @pytest.mark.parametrize("name", ["id", "subject", "type"])
    def test_a_missing_member_is_named(self, name):
        answer = rejected({name: ...})
        assert answer.path == name
        assert answer.id == (None if name == "id" else "req_81f")

    @pytest.mark.parametrize("subject", ["", "a" * 101, "a/b", "a b", "org\n", "оrg", 7])
    def test_a_subject_is_an_id_that_may_stand_in_a_path(self, subject):
        assert rejected({"subject": subject}).path == "subject"

    @pytest.mark.parametrize("kind", ["", "a" * 201, "a\tb", "a\u202eb", "a\u2028b", 1])
    def test_a_type_is_printable(self, kind):
        assert rejected({"type": kind}).path == "type"

    def test_a_type_may_be_in_any_language(self):
        assert accepted({"type": "使用 llm"}).type == "使用 llm"

    @pytest.mark.parametrize("data", [[], "x", 1, True])
    def test_data_is_an_object(self, data):
        assert rejected({"data": data}).path == "data"

    def test_an_unknown_member_is_refused_with_the_nearest_known_one(self):
        answer = rejected({"subjet": "org_7890", "subject": ...})
        assert (answer.code, answer.path) == ("unknown_field", "subjet")
        assert "`subject`" in answer.detail

    def test_a_quantity_beside_data_is_refused_and_data_is_named(self):
        answer = rejected({"total": 0})
        assert (answer.code, answer.path) == ("unknown_field", "total")
        assert "`data`" in answer.detail

    @pytest.mark.parametrize(
        ("text", "instant"),
        [
            ("2026-11-23T10:00:00+02:00", datetime(2026, 11, 23, 8, tzinfo=UTC)),
            ("2026-11-23T10:00:00.1Z", datetime(2026, 11, 23, 10, 0, 0, 100_000, tzinfo=UTC)),
            ("2026-11-23T10:00:00.123456789Z", datetime(2026, 11, 23, 10, 0, 0, 123_456, tzinfo=UTC)),
            ("2026-11-23T10:00:00.9999999Z", datetime(2026, 11, 23, 10, 0, 0, 999_999, tzinfo=UTC)),
            ("2026-01-01T00:30:00+01:00", datetime(2025, 12, 31, 23, 30, tzinfo=UTC)),
        ],
    )
    def test_times_are_read_into_utc_and_cut_to_microseconds(self, text, instant):
        time = accepted({"time": text}).time
        assert time == instant
        assert time.utcoffset().total_seconds() == 0

    @pytest.mark.parametrize(
        "time",
        [
            "2026-01-01T00:00:00",
            "2026-02-30T00:00:00Z",
            "2026-01-01T00:00:00.1234567890Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01",
            "2026-W01-1T00:00:00Z",
            "20260101T000000Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:60Z",
            "9999-12-31T23:59:59-14:00",
            "0001-01-01T00:00:00+14:00",
            "２０２６-01-01T00:00:00Z",
            "infinity",
            "",
            1767225600000,
            True,
            ["2026-01-01T00:00:00Z"],
        ],
    )
    def test_other_times_are_rejected(self, time):
        assert rejected({"time": time}).path == "time"


class TestCloudEvents:
    def test_extension_attributes_are_accepted(self):
        assert accepted({"traceparent": "00-1", "partitionkey": 7}, event=CLOUD_EVENT) == READ

    @pytest.mark.parametrize("name", ["traceParent", "trace_parent", "Data", "é"])
    def test_an_extension_has_a_name_of_lower_case_letters_and_digits(self, name):
        assert rejected({name: "x"}, event=CLOUD_EVENT).code == "unknown_field"

    @pytest.mark.parametrize("version", ["0.3", "1", 1, None])
    def test_only_version_one_is_read(self, version):
        assert rejected({"specversion": version}, event=CLOUD_EVENT).path == "specversion"

    def test_the_media_type_makes_an_event_a_cloud_event(self):
        assert rejected({}, headers=STRUCTURED).path == "specversion"

    def test_a_cloud_event_names_its_source(self):
        assert rejected({"source": ...}, event=CLOUD_EVENT).path == "source"

    @pytest.mark.parametrize("kind", ["application/json", "application/JSON; charset=utf-8", "application/vnd.a+json"])
    def test_data_may_be_any_kind_of_json(self, kind):
        assert accepted({"datacontenttype": kind}, event=CLOUD_EVENT) == READ

    @pytest.mark.parametrize("kind", ["application/xml", "text/plain", "application/jsonp", 1])
    def test_other_data_is_rejected(self, kind):
        assert rejected({"datacontenttype": kind}, event=CLOUD_EVENT).path == "datacontenttype"

    def test_binary_data_is_rejected(self):
        assert rejected({"data": ..., "data_base64": "e30="}, event=CLOUD_EVENT).path == "data_base64"


class TestNumbers:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("0.1", Decimal("0.1")),
            ("12345678901234567.123456", Decimal("12345678901234567.123456")),
            ("9007199254740993", 9007199254740993),
            ("1e3", Decimal("1e3")),
            ("123456789012345678901234567890", 123456789012345678901234567890),
        ],
    )
    def test_numbers_are_read_exactly_as_written(self, text, value):
        body = json.dumps(EVENT).replace("1200", text).encode()
        (event,) = wire.parse(body, JSON).events
        assert event.data["input_tokens"] == value
        assert type(event.data["input_tokens"]) is type(value)

    @pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1.", ".5", "01", "+1", "0x1"])
    def test_what_is_no_json_number_makes_the_body_malformed(self, text):
        with pytest.raises(MalformedJson):
            wire.parse(json.dumps(EVENT).replace("1200", text).encode(), JSON)

    @pytest.mark.parametrize("text", ["1E+1000000", "1E-1000000", "1e99999999999999999999", "9" * 5000])
    def test_extreme_numbers_are_refused_without_being_written_out(self, text):
        with pytest.raises(Invalid):
            wire.parse(json.dumps(EVENT).replace("1200", text).encode(), JSON)


FAULTY = {
    "a repeated member": b'{"id": "bad", "id": "bad"}',
    "a repeated member of data": b'{"id": "bad", "subject": "o", "type": "t", "data": {"a": 1, "a": 2}}',
    "NUL": b'{"id": "bad", "subject": "o", "type": "t", "data": {"a": "x\\u0000y"}}',
    "half of a surrogate pair": b'{"id": "bad", "subject": "o", "type": "t", "data": {"a": "\\ud83d"}}',
    "deep nesting": b'{"id": "bad", "subject": "o", "type": "t", "data": {"a":' + b"[" * 40 + b"]" * 40 + b"}}",
    "an extreme number": b'{"id": "bad", "subject": "o", "type": "t", "data": {"a": 1e500}}',
    "too many members": b'{"id": "bad", "data": {' + b",".join(b'"m%d":1' % i for i in range(1001)) + b"}}",
}


class TestOneFaultyEventOfABatch:
    @pytest.mark.parametrize("fault", FAULTY)
    @pytest.mark.parametrize("form", [b"[%s, %s ,%s]", b' {"events" : [%s, %s ,%s] }'])
    def test_it_is_rejected_by_itself_and_keeps_its_place(self, fault, form):
        good = json.dumps(EVENT).encode()
        first, second, third = wire.parse(form % (good, FAULTY[fault], good), JSON).events
        assert (first, third) == (READ, READ)
        assert isinstance(second, Rejected)
        assert second.detail

    def test_its_id_is_shown_where_it_can_be_read(self):
        good = json.dumps(EVENT).encode()
        _, second = wire.parse(b"[%s,%s]" % (good, FAULTY["an extreme number"]), JSON).events
        assert second.id == "bad"

    @pytest.mark.parametrize("item", [None, 1, "x", [], True])
    def test_what_is_no_object_is_rejected(self, item):
        first, second = parse([item, EVENT]).events
        assert (first.code, first.id, second) == ("validation", None, READ)

    def test_strings_that_look_like_structure_change_nothing(self):
        tricky = {**EVENT, "data": {'": {[,]} "': '\\": ":", \\\\" [', "b": ":"}}
        assert parse([tricky, EVENT]).events[0].data == tricky["data"]
        bad = FAULTY["NUL"]
        first, second = wire.parse(b"[%s,%s]" % (json.dumps(tricky).encode(), bad), JSON).events
        assert first.data == tricky["data"]
        assert isinstance(second, Rejected)

    @pytest.mark.parametrize(
        "body",
        [
            b'[{"id": "a",}]',
            b'[{"id": "a"}',
            b'[{"a": "\\u0000"}',
            b'[{"a": "\\u0000"}]]',
            b'{"events": [{"a": "\\u0000"}]',
            b'{"events": [{"a": "\\u0000"}], "events": []}',
            b'[{"a": "\\u0000"}, NaN]',
            b"[" * 100_000,
            b'[{"a":' + b'{"a":' * 7000,
            b'["\xff"]',
            '[{"a": 1}]'.encode("utf-16"),
            b"\xef\xbb\xbf[]",
            b"",
            b" ",
        ],
    )
    def test_a_body_that_is_no_json_is_refused_as_a_whole(self, body):
        with pytest.raises(DomainError) as caught:
            wire.parse(body, JSON)
        assert caught.value.status in (400, 422)

    def test_a_faulty_batch_of_too_many_events_is_refused_as_a_whole(self):
        with pytest.raises(BodyTooLarge):
            wire.parse(b"[%s]" % b",".join([FAULTY["NUL"]] * 1001), JSON)

    def test_a_body_that_unfolds_into_millions_of_values_is_refused_before_any_is_made(self, monkeypatch):
        monkeypatch.setattr(wire, "_cut", None)
        with pytest.raises(BodyTooLarge):
            wire.parse(b"[{},[%s]]" % b",".join([b"[]"] * 1_000_000), JSON)

    def test_a_faulty_single_event_is_refused_with_the_reason(self):
        for fault, status in [("NUL", 422), ("half of a surrogate pair", 422), ("deep nesting", 400)]:
            with pytest.raises(DomainError) as caught:
                wire.parse(FAULTY[fault], JSON)
            assert caught.value.status == status
