"""One case, measured in this process: what `ageflow.benchmark.measure.measure` starts."""

import json
import sys

from ageflow.memory import no_garbage_collection

if __name__ == "__main__":
    with no_garbage_collection():
        from ageflow.benchmark.measure import Case, measure_here

    print(json.dumps(measure_here(Case.model_validate_json(sys.argv[1]))))
