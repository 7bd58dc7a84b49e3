"""Days before months by name, hours to 24, and always the zone: staff compare these times with tenants' own and with logs."""

DATE_FORMAT = "j M Y"
TIME_FORMAT = "H:i"
DATETIME_FORMAT = "j M Y, H:i T"
