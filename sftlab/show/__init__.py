"""Plots, claim cards, widgets and reports: the only room that draws."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cards": [
            "Card",
            "continuations",
            "conversation",
            "findings",
            "sentence",
            "side_by_side",
            "start_lesson",
        ],
        "checklist": ["run_checklist"],
        "diagrams": ["diagram"],
        "evaluation": ["ReportError", "evaluation_report"],
        "mask": ["show_mask"],
        "plots": [
            "COLOURS",
            "CURVES",
            "GREY",
            "Picture",
            "plot_card",
            "plot_curves",
            "plot_reactions",
            "plot_shares",
        ],
        "claims": ["claim_card", "plot_calibration"],
        "safety": ["safety_report"],
        "report": ["Report", "next_command", "summary", "write_report"],
        "run_plots": [
            "Point",
            "plot_against",
            "plot_loss",
            "plot_map",
            "plot_memory",
            "plot_meter",
            "plot_pareto",
            "plot_runs",
        ],
        "widgets": ["decision_guide", "decision_table", "mask_explorer"],
    },
)
