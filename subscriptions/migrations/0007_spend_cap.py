"""A tenant may have a cap on what its overage costs."""
import django.db.models.functions.math
import subscriptions.models.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("subscriptions", "0006_room_for_leases"),
    ]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="spend_cap",
            field=subscriptions.models.fields.MoneyField(blank=True, decimal_places=6, max_digits=24, null=True),
        ),
        migrations.AddConstraint(
            model_name="tenant",
            constraint=models.CheckConstraint(condition=models.Q(("spend_cap__gte", 0)), name="tenant_spend_cap"),
        ),
        migrations.AddConstraint(
            model_name="tenant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "spend_cap",
                        django.db.models.functions.math.Round(
                            models.F("spend_cap"),
                            precision=models.Case(
                                models.When(
                                    currency__in=[
                                        "AFN",
                                        "ALL",
                                        "BIF",
                                        "CLP",
                                        "DJF",
                                        "GNF",
                                        "IQD",
                                        "IRR",
                                        "ISK",
                                        "JPY",
                                        "KMF",
                                        "KPW",
                                        "KRW",
                                        "LAK",
                                        "LBP",
                                        "MGA",
                                        "MMK",
                                        "PYG",
                                        "RSD",
                                        "RWF",
                                        "SOS",
                                        "SYP",
                                        "UGX",
                                        "UYI",
                                        "VND",
                                        "VUV",
                                        "XAF",
                                        "XOF",
                                        "XPF",
                                        "YER",
                                    ],
                                    then=models.Value(0),
                                ),
                                models.When(
                                    currency__in=["BHD", "JOD", "KWD", "LYD", "OMR", "TND"], then=models.Value(3)
                                ),
                                models.When(currency__in=["CLF", "UYW"], then=models.Value(4)),
                                default=models.Value(2),
                                output_field=models.IntegerField(),
                            ),
                        ),
                    )
                ),
                name="tenant_spend_cap_unit",
            ),
        ),
    ]
