"""Examine devices and models in a process of its own: models as JSON in, findings as JSON out."""

import sys

from pydantic import TypeAdapter

from nightshift.models.preflight.doctor import examine_devices, examine_models
from nightshift.schema.findings import Finding
from nightshift.schema.models import ModelInUse

if __name__ == "__main__":
    models = TypeAdapter(list[ModelInUse]).validate_json(sys.stdin.buffer.read())
    findings = [*examine_devices(), *examine_models(models)]
    sys.stdout.buffer.write(TypeAdapter(list[Finding]).dump_json(findings))
