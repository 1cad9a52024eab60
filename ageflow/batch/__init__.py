"""``python -m ageflow.batch``: the notebooks 01 to 08 in order, and 11 before 06 where it is asked for, through papermill.

A notebook whose source, parameters and inputs have not changed since it last succeeded is skipped. Executed copies
and the times lie in ``runs/<dataset>/<run>/notebooks/``; at the end ``report/index.html`` gathers what came out.
Several data sets, seeds or varied values make a run of each, and one table of them all in ``runs/summary/``.
"""
