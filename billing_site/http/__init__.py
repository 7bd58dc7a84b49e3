"""What every HTTP door shares: problem documents, pagination, strict serializers, authentication. No model; imports no app."""
