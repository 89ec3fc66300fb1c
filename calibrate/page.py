"""A calibration's page: verdict, errors, plots and the server's settings, in one file that needs no network."""

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simcore.profile_measurement import Measurement

from .build import Built

__all__ = ["calibration_page", "error_rows"]


def calibration_page(built: Built, plots: Mapping[str, str], command: str) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("calibrate"), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("calibration.html.j2").render(
        profile=built.profile,
        verdict=built.verdict.sentence(),
        rows=error_rows(built),
        plots={name: Markup(svg) for name, svg in plots.items()},
        facts=_facts(built),
        command=command,
    )


def error_rows(built: Built) -> list[tuple[str, ...]]:
    """A row a kind of step: samples, mean and largest error, mean error on samples held back, half interval."""
    rows: list[tuple[str, ...]] = []
    for term in ("decode", "prefill", "mixed"):
        found = getattr(built.fitted.residuals, term)
        if found is None:
            continue
        held, width = getattr(built.fitted.held_back, term), getattr(built.fitted.confidence, term)
        rows.append(
            (
                term,
                str(found.samples),
                f"{found.mape:.1%}",
                f"{found.max_abs:.1%}",
                "-" if held is None else f"{held.mape:.1%} of {held.samples}",
                "-" if width is None else f"±{width:.1%}",
            )
        )
    return rows


def _facts(built: Built) -> list[tuple[str, object]]:
    profile = built.profile
    measurement = profile.measurement
    assert isinstance(measurement, Measurement)
    provenance, overheads = profile.provenance, profile.requests
    report = measurement.load_report
    return [
        ("model", provenance.model),
        ("engine", f"{provenance.engine} {provenance.engine_version}"),
        ("hardware", provenance.gpu),
        ("measured from", measurement.machine),
        ("measured", f"{measurement.started_at}, {measurement.duration_s:.0f} s, {measurement.samples} samples"),
        ("KV pool", f"{profile.kv_tokens_capacity} tokens"),
        ("context length", f"{profile.context_length} tokens"),
        ("ingress, egress", f"{overheads.ingress_s * 1e3:.2f} ms, {overheads.egress_s * 1e3:.2f} ms"),
        ("last token", f"{overheads.last_token_s * 1e3:.2f} ms later"),
        ("requests sent at once", f"{overheads.ingress_spacing_s * 1e3:.2f} ms apart"),
        ("load report", "-" if report is None else f"{report.delay_s * 1e3:.1f} ms old on average"),
        ("client over server step times", measurement.server_clock_ratio or "-"),
        *profile.settings.model_dump(exclude_none=True).items(),
        *((name, value) for name, value in measurement.server_args.items() if value is not None),
    ]
