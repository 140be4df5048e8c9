"""Runs studies: many trials, from what the user asked to the answer.

A study goes through these folders in this order::

    config      what the user asked, checked before anything heavy is imported
    planning    what each arm needs, and where it fits
    search      which trial runs next, and which goes on
    execution   the driver's side of Ray
    worker      the device's side: hosts that train trials
    tracking    MLflow and the terminal, written while trials run
    storage     the study's folder, its checkpoints and answers, or an object store
    statistics  intervals of scores, comparisons and their power
    analysis    from records to the answer
    reporting   the answer shown: report, tables, models
    health      the checks of ``study.doctor``
    inventory   which studies there are, and what becomes of them
    trials      the vocabulary that all of them share

The modules beside the folders are the commands, ``python -m study.NAME``, and ``workflow``, which
takes one study through the folders step by step.
"""
