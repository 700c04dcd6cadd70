"""python -m pyfreezer"""

from pyfreezer._run import main

if __name__ == "__main__":
    main()
