"""The form of an event, by DRF's own means."""

from rest_framework import serializers
from rest_framework.validators import UniqueTogetherValidator

from benchmarks.naive.models import NaiveEvent

ALIAS = "naive"  # the connection that settings keep for these views


class NaiveEventSerializer(serializers.ModelSerializer):
    """An event as it is sent; `id` is the sender's."""

    id = serializers.CharField(source="event_id", max_length=255)
    data = serializers.DictField()

    class Meta:
        model = NaiveEvent
        fields = ("id", "source", "type", "subject", "time", "data")
        # What DRF makes of the unique constraint by itself, on the views' own connection.
        validators = (
            UniqueTogetherValidator(queryset=NaiveEvent.objects.using(ALIAS), fields=("subject", "source", "id")),
        )


class LeanEventSerializer(NaiveEventSerializer):
    """The same without DRF's question for each event, whether it is there already."""

    class Meta(NaiveEventSerializer.Meta):
        validators = ()


class NaiveHoldSerializer(serializers.Serializer):
    """A call that is about to run."""

    tenant = serializers.CharField(max_length=100)
    meter = serializers.CharField(max_length=100)
    quantity = serializers.DecimalField(max_digits=24, decimal_places=6)
    key = serializers.CharField(max_length=255)
