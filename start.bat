@echo off
rem Workroom, from a fresh clone with only Python 3.11 or newer: makes .venv, installs
rem the locked requirements, and serves. Arguments go on to `python -m app serve`.
rem start.sh is the same for other systems; requirements\venv.sh says why each step.
setlocal EnableExtensions DisableDelayedExpansion
cd /d "%~dp0"
set "LOCK=requirements\base.txt"
set "INSTALLED=.venv\installed-base.txt"
set "UNFINISHED=.venv\unfinished"
set "VENV_PYTHON=.venv\Scripts\python.exe"

if not exist "%VENV_PYTHON%" goto prepare
fc /b "%LOCK%" "%INSTALLED%" >nul 2>&1
if not errorlevel 1 goto serve

:prepare
if exist "%UNFINISHED%" goto make
if not exist "%VENV_PYTHON%" goto make
"%VENV_PYTHON%" -c "import sys; sys.exit(sys.version_info < (3, 11))" >nul 2>&1
if errorlevel 1 goto make
"%VENV_PYTHON%" -m pip --version >nul 2>&1
if not errorlevel 1 goto install

:make
set "FOUND="
if defined PYTHON call :try "%PYTHON%"
if defined PYTHON if not defined FOUND >&2 echo workroom: PYTHON=%PYTHON% is no Python 3.11 or newer that can make environments: looking on
for %%P in ("py -3.13" "py -3.12" "py -3.11" "py -3" "python3" "python") do if not defined FOUND call :try_words %%~P
if not defined FOUND (
    >&2 echo workroom: needs Python 3.11 or newer and finds none: install it from https://www.python.org/downloads/, or name one: set PYTHON=C:\path\to\python.exe
    exit /b 1
)
echo workroom: making .venv with %FOUND%
if exist .venv rmdir /s /q .venv
mkdir .venv
if errorlevel 1 (
    >&2 echo workroom: cannot make .venv: make this folder writable, or end what uses it
    exit /b 1
)
echo making>"%UNFINISHED%"
call %FOUND% -m venv .venv >"%TEMP%\workroom-install.log" 2>&1
if errorlevel 1 (
    type "%TEMP%\workroom-install.log" >&2
    >&2 echo workroom: could not make .venv: its words are above
    exit /b 1
)

:install
echo installing>"%UNFINISHED%"
del /q .venv\installed-*.txt >nul 2>&1
echo workroom: installing the packages of %LOCK% into .venv (once; about half a minute)
"%VENV_PYTHON%" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes -r "%LOCK%" >.venv\install.log 2>&1
if errorlevel 1 (
    del /q "%UNFINISHED%"
    type .venv\install.log >&2
    >&2 echo workroom: pip could not install %LOCK%: its words are above. Check the network or name a package index in PIP_INDEX_URL, then start again
    exit /b 1
)
copy /b /y "%LOCK%" "%INSTALLED%" >nul
del /q "%UNFINISHED%"

:serve
"%VENV_PYTHON%" -m app serve %*
exit /b %errorlevel%

:try_words
rem The words of a command such as: py -3.12
set "CANDIDATE=%*"
goto check

:try
set "CANDIDATE="%~1""

:check
rem `call`, as a name may be a batch file (pyenv). Passes over the store's alias too.
call %CANDIDATE% -c "import sys; sys.exit(3) if sys.version_info < (3, 11) else None; import ensurepip, venv" >nul 2>&1
if not errorlevel 1 set "FOUND=%CANDIDATE%"
exit /b 0
