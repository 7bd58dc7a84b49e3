"""WHAT IS OWED AND PAID: invoices, their lines, and where each line comes from."""
